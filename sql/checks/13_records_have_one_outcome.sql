-- Every payment record that was judged has one outcome; what is parked has a finance task.
SELECT format('record %s of %s is %s%s', t.provider_ref, t.provider, t.outcome,
              CASE WHEN t.outcome = 'parked' THEN ' without a task' ELSE '' END) AS finding
FROM prepaid.transactions t
WHERE t.outcome NOT IN ('matched', 'parked', 'superseded', 'waiting')
   OR t.outcome = 'parked' AND NOT EXISTS (
       SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id)
ORDER BY t.transaction_id;
