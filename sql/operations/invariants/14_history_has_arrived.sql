-- No subscription waits for its history or its discounts: the files that came with subscriptions.csv were imported.
SELECT format('subscription %s is not opened: correct the service_plans.csv or discounts.csv that came '
              'with it and '
              'import the directory again', s.subscription_ref) AS finding
FROM prepaid.subscriptions_awaiting_history w JOIN prepaid.subscriptions s USING (subscription_id)
ORDER BY s.subscription_ref;
