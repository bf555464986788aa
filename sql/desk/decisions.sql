-- Decisions and what else people do to tasks; each under the person's own role.

-- name: decide
SELECT prepaid.decide_as_seen(CAST(:tasks AS bigint[]), CAST(:seen AS bigint[]), :decision,
                              CAST(:note AS text), :agreeing_only);

-- name: reassign
SELECT prepaid.reassign_tasks(CAST(:tasks AS bigint[]), CAST(:person AS text), CAST(:note AS text));

-- name: colleagues
SELECT DISTINCT person FROM prepaid.colleagues WHERE team = :team ORDER BY person;

-- name: of_task
SELECT sign_off_id, decision, note, decided_by, decided_at
FROM prepaid.decisions WHERE task_id = :task ORDER BY sign_off_id DESC;

-- name: list
SELECT sign_off_id, task_id, kind, service_plan_id, customer_ref, invoice_number, currency, payable,
       decision, note, decided_by, decided_at
FROM prepaid.latest_decisions(CAST(:before AS bigint), CAST(:decision AS text), CAST(:search AS text), :rows)
ORDER BY sign_off_id DESC;
