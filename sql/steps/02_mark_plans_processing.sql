-- Step 2: from here until step 5 the pipeline is at work on the plan, and everybody can see it.
UPDATE prepaid.service_plans
SET status = 'Processing'
WHERE service_plan_id = ANY (:plans)
  AND status = 'Pending' AND invoiced_at IS NULL AND retrieved_at IS NOT NULL;
