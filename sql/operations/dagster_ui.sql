-- Who is signed in at Dagster's UI. Its process has the desk's own login, which may call these functions
-- and read no table; the links are made by the pipeline's owner.

-- name: session
SELECT person, teams FROM prepaid.ui_session(:token_hash, :awake);

-- name: open
SELECT prepaid.operator_open_session(:link_hash, :token_hash, :idle_seconds, :absolute_seconds);

-- name: end
SELECT prepaid.operator_end_session(:token_hash);

-- name: make_link
-- No row where somebody has a password: they sign in with that.
INSERT INTO prepaid.operator_sessions (link_hash, operator, expires_at)
SELECT :link_hash, :operator, clock_timestamp() + make_interval(hours => :hours)
WHERE NOT prepaid.anybody_has_a_password()
RETURNING operator;

-- name: engineers
-- How people could sign in: whether anybody has a password, and who of engineering has one.
SELECT prepaid.anybody_has_a_password() AS anybody,
       (SELECT count(*) FROM prepaid.team_members m JOIN prepaid.desk_accounts a ON a.person = m.person
        WHERE m.team = 'engineering' AND a.password_hash IS NOT NULL) AS engineers;
