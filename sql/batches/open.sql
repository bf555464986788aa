-- When opening fails, the range of subscriptions is halved until the one that breaks it is alone.

-- name: range
SELECT coalesce(min(subscription_id), 0) AS first, coalesce(max(subscription_id), 0) AS last
FROM prepaid.subscriptions;

-- name: note_failed
-- There is no plan yet that could be held: the audit log keeps it, 'prepaid check' lists it.
INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
SELECT 'opening_failed', 'subscription', subscription_id, :text,
       prepaid.actor(), prepaid.run_id(), :as_of
FROM prepaid.subscriptions WHERE subscription_id BETWEEN :first AND :last
ON CONFLICT (entity_id, as_of) WHERE event = 'opening_failed' DO NOTHING;
