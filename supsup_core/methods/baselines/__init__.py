"""The methods that SupSup is compared with."""
