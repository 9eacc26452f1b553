"""The sections of the report page, one module each, and what they are drawn from and with."""
