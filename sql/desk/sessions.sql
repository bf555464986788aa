-- Sign-ins. The desk's own login may call these functions and read no table of them.

-- name: account
SELECT password_hash, failed, may_try AS may_sign_in FROM prepaid.desk_account(:person);

-- name: failed
SELECT prepaid.desk_failed(:person);

-- name: open
SELECT prepaid.desk_open_session(:token_hash, :person, :idle_seconds, :absolute_seconds);

-- name: session
SELECT person, teams FROM prepaid.desk_session(:token_hash);

-- name: end
SELECT prepaid.desk_end_session(:token_hash);

-- name: end_all
SELECT prepaid.desk_end_sessions(:person);

-- name: person_of
SELECT prepaid.desk_person(:address) AS person;

-- name: plan_anew
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);
