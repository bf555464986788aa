"""What customers buy, are charged and pay: subscriptions, invoices, payments, dunning."""
