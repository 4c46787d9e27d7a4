"""The SQL side: its text for every way of delivery (`render`), and installing it (`apply`)."""
