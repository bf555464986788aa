"""What payment providers and banks deliver, read into ``prepaid.transactions``.

What belongs here: the formats of others (Stripe's exports, ISO 20022 statements) and what each of
their rows means as a payment record. Our own transactions.csv is the importer's.
"""
