package postgres

import (
	"context"
	_ "embed"
)

// Names of the shop: the database, the role of the application (it owns the
// schema, as applications tend to) and the role of its administrators.
const (
	ShopDatabase = "shop"
	AppRole      = "weir_app"
	DBARole      = "weir_dba"
)

// shopSQL is a psql script; it wants the variables app_password and
// dba_password.
//
//go:embed shop.sql
var shopSQL string

func (s *Server) loadShop(ctx context.Context) error {
	_, err := s.psql(ctx, shopSQL, "-v", "app_password="+s.passwords[AppRole], "-v", "dba_password="+s.passwords[DBARole], "-f", "-")
	return err
}
