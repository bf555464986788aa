-- No approval stands that was given by somebody who had a hand in what is approved, before or after it.
SELECT format('task %s is approved by %s, who %s; the next run asks finance again', o.task_id, o.person, o.what)
    AS finding
FROM prepaid.own_approvals o
ORDER BY o.task_id;
