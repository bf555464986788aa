-- Every task's decision is its latest sign-off.
SELECT format('task %s says %s, its latest sign-off %s', k.task_id,
              coalesce(k.decision || ' by ' || k.decided_by, 'nothing'),
              coalesce(s.decision || ' by ' || s.decided_by, 'nothing')) AS finding
FROM prepaid.tasks k
LEFT JOIN LATERAL (SELECT s.decision, s.decided_by FROM prepaid.sign_offs s
    WHERE s.task_id = k.task_id ORDER BY s.sign_off_id DESC LIMIT 1) s ON true
WHERE (k.decision, k.decided_by) IS DISTINCT FROM (s.decision, s.decided_by)
ORDER BY k.task_id;
