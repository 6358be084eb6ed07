"""A Django site in one small package: every kind of request that a proxy in front of it may spoil."""
