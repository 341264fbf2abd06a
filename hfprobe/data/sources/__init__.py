"""From files, tables and hub datasets to rows."""
