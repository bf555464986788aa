-- Records without an outcome. No cursor over ids: rows commit out of order.
SELECT transaction_id FROM prepaid.transactions WHERE outcome IS NULL LIMIT :limit;
