-- A small shop. Everything is fixed, so that tests can say what they expect.
-- Card numbers are the payment networks' published test numbers (all pass
-- Luhn), IBANs those of the IBAN registry's examples, phone numbers and domains
-- those reserved for fiction and documentation.
CREATE ROLE weir_app LOGIN PASSWORD :'app_password';
CREATE ROLE weir_dba LOGIN PASSWORD :'dba_password' IN ROLE weir_app, pg_read_all_data, pg_monitor, pg_signal_backend;
CREATE DATABASE shop OWNER weir_app;
\connect shop
SET ROLE weir_app;
CREATE SCHEMA shop;

CREATE TABLE shop.customers (
    id    integer PRIMARY KEY,
    name  text NOT NULL,
    email text NOT NULL UNIQUE,
    phone text,
    iban  varchar(42)
);
INSERT INTO shop.customers (id, name, email, phone, iban) VALUES
    (1, 'Ada Moreno',      'ada.moreno@example.com',    '+1 202-555-0114',   'DE89 3704 0044 0532 0130 00'),
    (2, 'Ben Okafor',      'ben@okafor.example',        '+44 20 7946 0018',  'GB82 WEST 1234 5698 7654 32'),
    (3, 'Chloé Dubois',    'chloe.dubois@example.org',  '+33 1 99 00 12 34', 'FR14 2004 1010 0505 0001 3M02 606'),
    (4, 'Dirk de Vries',   'dirk@devries.example',      '+44 20 7946 0104',  'NL91ABNA0417164300'),
    (5, 'Elena Ruiz',      'elena+shop@example.net',    '+1 303-555-0177',   'ES9121000418450200051332'),
    (6, 'Finn Keller',     'finn.keller@example.com',   '+49 30 23125 123',  'CH9300762011623852957'),
    (7, 'Greta Nilsen',    'greta@nilsen.example',      '+44 20 7946 0777',  'NO9386011117947'),
    (8, 'Hiro Tanaka',     'hiro.tanaka@example.org',   '+1 415-555-0132',   NULL),
    (9, 'Ines Carvalho',   'ines@carvalho.example',     NULL,                'BE68539007547034'),
    (10, 'Jan Kowalski',   'jan.kowalski@example.com',  '+1 212-555-0199',   'PL61109010140000071219812874');

CREATE TABLE shop.payments (
    id          integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES shop.customers (id),
    card_number text NOT NULL,
    amount      numeric(10, 2) NOT NULL CHECK (amount > 0),
    note        text
);
INSERT INTO shop.payments (id, customer_id, card_number, amount, note) VALUES
    (1, 1, '4111 1111 1111 1111', 19.90,  'first order'),
    (2, 2, '5555 5555 5555 4444', 120.00, 'gift wrap'),
    (3, 3, '378282246310005',     42.50,  NULL),
    (4, 4, '6011-1111-1111-1117', 7.25,   'paid with card 6011 1111 1111 1117 by phone'),
    (5, 5, '4012888888881881',    310.00, 'second card is 4222222222222'),
    (6, 6, '5105105105105100',    64.10,  'write to finn.keller@example.com'),
    (7, 7, '3530111333300000',    15.00,  NULL),
    (8, 8, '30569309025904',      88.80,  'refund asked for'),
    (9, 9, '371449635398431',     5.99,   'IBAN BE68 5390 0754 7034 on file'),
    (10, 10, '6011000990139424',  230.45, 'order 1234567890123456 is no card');

CREATE TABLE shop.orders (
    id          integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES shop.customers (id),
    item        text NOT NULL,
    total       numeric(10, 2) NOT NULL,
    placed_at   timestamptz NOT NULL
);
INSERT INTO shop.orders (id, customer_id, item, total, placed_at)
SELECT n, 1 + (n - 1) % 10,
       (ARRAY['kettle', 'lamp', 'notebook', 'umbrella', 'teapot', 'blanket', 'clock'])[1 + (n - 1) % 7],
       round(5 + (n * 37 % 200) * 1.05, 2),
       timestamptz '2026-01-05 09:00:00+00' + n * interval '7 hours'
FROM generate_series(1, 100) AS n;

CREATE VIEW shop.customer_payments AS
    SELECT c.id AS customer_id, c.name, c.email, p.id AS payment_id, p.card_number, p.amount
    FROM shop.customers AS c JOIN shop.payments AS p ON p.customer_id = c.id;

CREATE FUNCTION shop.customer_total(customer integer) RETURNS numeric
    LANGUAGE sql STABLE
    AS $$ SELECT coalesce(sum(o.total), 0) FROM shop.orders AS o WHERE o.customer_id = customer $$;

GRANT USAGE ON SCHEMA shop TO weir_dba;
RESET ROLE;
ANALYZE;
