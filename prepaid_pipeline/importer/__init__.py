"""Import of customers, plans, add-ons, tax rates, subscriptions, discounts, service plans and
transactions.

What belongs here: the columns of the files, reading them, and taking them into the database.
"""
