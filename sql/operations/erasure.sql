SELECT prepaid.erase_customer(:ref, :reason) AS message_ids;
