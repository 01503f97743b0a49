"""Everything that touches the market database: schema, migrations, bulk writes, the ledger."""
