-- Signing in at Dagster's UI: the operator's link, and sessions that a polling tab does not keep awake.
-- New things only: nothing that was there is changed.

-- A link and the session that it has opened, once. The operator is no person of a team: the session opens
-- Dagster's UI, and nothing at the sign-off pages.
CREATE TABLE prepaid.operator_sessions (
    link_hash bytea PRIMARY KEY CHECK (length(link_hash) = 32),
    operator text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Of the link until it was used, then of the session.
    expires_at timestamptz NOT NULL,
    token_hash bytea UNIQUE CHECK (length(token_hash) = 32),
    last_seen_at timestamptz,
    idle_seconds integer CHECK (idle_seconds > 0),
    revoked_at timestamptz,
    CONSTRAINT operator_sessions_are_whole
        CHECK (num_nonnulls(token_hash, last_seen_at, idle_seconds) IN (0, 3))
);

CREATE FUNCTION prepaid.anybody_has_a_password() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM prepaid.desk_accounts WHERE password_hash IS NOT NULL)
$$;

-- Opens the session of a link that was not used yet; null where there is none, or somebody has a password.
CREATE FUNCTION prepaid.operator_open_session(
    link bytea, new_token_hash bytea, idle_seconds integer, absolute_seconds integer
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    name text;
BEGIN
    UPDATE prepaid.operator_sessions o
    SET token_hash = new_token_hash, last_seen_at = clock_timestamp(),
        idle_seconds = operator_open_session.idle_seconds,
        expires_at = clock_timestamp() + make_interval(secs => absolute_seconds)
    WHERE o.link_hash = link AND o.token_hash IS NULL AND o.expires_at > clock_timestamp()
      AND NOT prepaid.anybody_has_a_password()
    RETURNING o.operator INTO name;
    IF name IS NOT NULL THEN
        PERFORM prepaid.note_access('signed_in', name);
    END IF;
    RETURN name;
END $$;

CREATE FUNCTION prepaid.operator_end_session(token bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    UPDATE prepaid.operator_sessions SET revoked_at = clock_timestamp()
    WHERE token_hash = token AND revoked_at IS NULL
$$;

-- Whose session it is, with the person's teams, as desk_session has it; an operator counts as an engineer.
-- Keeps it awake only if asked to: a tab that polls asks all the time.
CREATE FUNCTION prepaid.ui_session(token bytea, awake boolean)
RETURNS TABLE (person text, teams text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    IF awake THEN
        UPDATE prepaid.desk_sessions s SET last_seen_at = moment
        WHERE s.token_hash = token AND s.last_seen_at > moment - make_interval(secs => s.idle_seconds);
        UPDATE prepaid.operator_sessions o SET last_seen_at = moment
        WHERE o.token_hash = token AND o.last_seen_at > moment - make_interval(secs => o.idle_seconds);
    END IF;
    RETURN QUERY
    SELECT s.person, array_agg(m.team ORDER BY m.team)
    FROM prepaid.desk_sessions s JOIN prepaid.team_members m ON m.person = s.person
    WHERE s.token_hash = token AND s.revoked_at IS NULL AND s.expires_at > moment
      AND s.last_seen_at > moment - make_interval(secs => s.idle_seconds)
    GROUP BY s.person
    UNION ALL
    SELECT o.operator, ARRAY['engineering']
    FROM prepaid.operator_sessions o
    WHERE o.token_hash = token AND o.revoked_at IS NULL AND o.expires_at > moment
      AND o.last_seen_at > moment - make_interval(secs => o.idle_seconds);
END $$;

REVOKE ALL ON prepaid.operator_sessions FROM engineering;
REVOKE EXECUTE ON FUNCTION prepaid.operator_open_session, prepaid.operator_end_session,
    prepaid.ui_session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepaid.operator_open_session, prepaid.operator_end_session,
    prepaid.ui_session TO desk;
