"""What customers are charged and pay: subscriptions, invoices, payment matching, dunning, providers."""
