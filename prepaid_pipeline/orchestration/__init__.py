"""The process in Dagster: ops, jobs, schedules, resources, partitions, leases, clean-up."""
