// pgjdbc through Weir: HOST PORT DATABASE [ADDRESS-FAMILY]. Java connects over
// v4-mapped IPv6 addresses by default. Prints "ok" when every step held.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

public class JdbcClient {
  static void check(boolean ok, String what) {
    if (!ok) throw new IllegalStateException(what);
  }

  interface Sql { void run() throws SQLException; }

  static void refused(String state, Sql sql) {
    try {
      sql.run();
    } catch (SQLException e) {
      check(state.equals(e.getSQLState()), "SQLSTATE " + e.getSQLState() + ": " + e.getMessage());
      return;
    }
    throw new IllegalStateException("not refused");
  }

  public static void main(String[] a) throws Exception {
    Properties p = new Properties();
    p.setProperty("user", "ann");
    p.setProperty("sslmode", System.getProperty("sslmode", "prefer"));
    String host = a[0].contains(":") ? "[" + a[0] + "]" : a[0];
    try (Connection c = DriverManager.getConnection("jdbc:postgresql://" + host + ":" + a[1] + "/" + a[2], p)) {
      try (PreparedStatement s = c.prepareStatement("SELECT item FROM shop.orders WHERE id = ?")) {
        for (int i = 1; i <= 8; i++) { // past prepareThreshold: a named statement from the fifth on
          s.setInt(1, i);
          try (ResultSet r = s.executeQuery()) { check(r.next() && r.getString(1) != null, "row " + i); }
        }
      }
      try (Statement s = c.createStatement()) {
        try (ResultSet r = s.executeQuery("SELECT card_number FROM shop.payments WHERE id = 1")) {
          check(r.next() && r.getString(1).endsWith("1111") && !r.getString(1).contains("4111"), "not masked");
        }
        refused("42501", () -> s.execute("DROP TABLE shop.orders"));
        try (ResultSet r = s.executeQuery("SELECT 1")) { check(r.next(), "after a denial"); }
        c.setAutoCommit(false);
        try (ResultSet r = s.executeQuery("SELECT 1")) { check(r.next(), "in a transaction"); }
        refused("42501", () -> s.execute("DELETE FROM shop.orders"));
        refused("25P02", () -> s.executeQuery("SELECT 1"));
        c.rollback();
        s.setFetchSize(7);
        int n = 0;
        try (ResultSet r = s.executeQuery("SELECT id FROM shop.orders")) { while (r.next()) n++; }
        check(n == 100, "fetched " + n);
        c.rollback();
        c.setAutoCommit(true);
        check(c.getMetaData().getTables(null, "shop", "orders", null).next(), "metadata");
      }
    }
    System.out.println("ok");
  }
}
