-- Plans are opened for ten thousand subscriptions at a time. When that fails, their range is halved
-- until the one that breaks it is alone.

-- name: parts
-- Not "the next ten thousand that are due": each time it would look again at all it has opened.
SELECT min(subscription_id) AS first, max(subscription_id) AS last
FROM (SELECT subscription_id, (row_number() OVER (ORDER BY subscription_id) - 1) / :limit AS part
      FROM prepaid.subscriptions) s
GROUP BY part ORDER BY part;

-- name: note_failed
-- There is no plan yet that could be held: the audit log keeps it, 'prepaid check' lists it.
INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor, run_id, as_of)
SELECT 'opening_failed', 'subscription', subscription_id, :text,
       prepaid.actor(), prepaid.run_id(), :as_of
FROM prepaid.subscriptions WHERE subscription_id BETWEEN :first AND :last
ON CONFLICT (entity_id, as_of) WHERE event = 'opening_failed' DO NOTHING;
