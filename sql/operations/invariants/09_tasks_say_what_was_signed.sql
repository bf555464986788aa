-- Every task's decision is its latest sign-off, and above the limit two different people approved.
SELECT format('task %s says %s, its latest sign-off %s', k.task_id,
              coalesce(said.decision || ' by ' || said.person, 'nothing'),
              coalesce(s.decision || ' by ' || s.decided_by, 'nothing')) AS finding
FROM prepaid.tasks k
CROSS JOIN LATERAL (SELECT
    coalesce(k.decision, CASE WHEN k.first_approved_by IS NOT NULL THEN 'approved' END) AS decision,
    CASE WHEN k.decision IS NULL THEN k.first_approved_by ELSE k.decided_by END AS person) said
LEFT JOIN LATERAL (SELECT s.decision, s.decided_by FROM prepaid.sign_offs s
    WHERE s.task_id = k.task_id ORDER BY s.sign_off_id DESC LIMIT 1) s ON true
WHERE (said.decision, said.person) IS DISTINCT FROM (s.decision, s.decided_by)
UNION ALL
SELECT format('task %s says that %s approved it before %s, and the sign-off before the latest is %s',
              k.task_id, k.first_approved_by, k.decided_by,
              coalesce(s.decision || ' by ' || s.decided_by, 'missing'))
FROM prepaid.tasks k
LEFT JOIN LATERAL (SELECT s.decision, s.decided_by FROM prepaid.sign_offs s
    WHERE s.task_id = k.task_id ORDER BY s.sign_off_id DESC OFFSET 1 LIMIT 1) s ON true
WHERE k.decision = 'approved' AND k.first_approved_by IS NOT NULL
  AND ((s.decision, s.decided_by) IS DISTINCT FROM ('approved', k.first_approved_by)
       OR k.first_approved_by = k.decided_by);
