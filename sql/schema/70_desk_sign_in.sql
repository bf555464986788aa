-- The sign-off pages: signing in and sessions. The pages have a database login of their own, in the
-- role desk: it may call these functions and take the role of a person, and has no other right.

-- The browser has the token; here is its SHA-256, so that nobody who reads this table has a session.
CREATE TABLE prepaid.desk_sessions (
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    person text NOT NULL REFERENCES prepaid.desk_accounts,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    idle_seconds integer NOT NULL CHECK (idle_seconds > 0)
);
CREATE INDEX desk_sessions_by_person ON prepaid.desk_sessions (person);

-- Clocks here are real time, never the business date: they are about access.

CREATE FUNCTION prepaid.note_access(event text, person text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prepaid.audit_log (event, entity, detail, actor, run_id)
    VALUES (event, 'person', person, prepaid.actor(), prepaid.run_id());
$$;

-- What is needed to sign somebody in; no row for a name that is nobody's. may_try is false while the
-- account is locked or disabled, or in no team.
CREATE FUNCTION prepaid.desk_account(name text)
RETURNS TABLE (person text, password_hash text, failed integer, locked_until timestamptz,
               disabled boolean, team text, may_try boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT a.person, a.password_hash, a.failed, a.locked_until, a.disabled, m.team,
           m.team IS NOT NULL AND coalesce(a.locked_until <= clock_timestamp(), true)
    FROM prepaid.desk_accounts a
    LEFT JOIN LATERAL (SELECT min(m.team) AS team FROM prepaid.team_members m
                       WHERE m.person = a.person) m ON true
    WHERE a.person = desk_account.name
$$;

-- The one person with this address, for a sign-in elsewhere (OpenID Connect); null if there is none,
-- or more than one.
CREATE FUNCTION prepaid.desk_person(address text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    SELECT min(a.person) FROM prepaid.desk_accounts a
    WHERE lower(a.email) = lower(address) AND NOT a.disabled HAVING count(*) = 1
$$;

-- Notes a wrong password. From the fifth in a row on, the account is locked for a quarter of an hour
-- after each: at most 5 + 96 guesses a day. Returns until when it is locked.
CREATE FUNCTION prepaid.desk_failed(name text) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    locked timestamptz;
BEGIN
    UPDATE prepaid.desk_accounts a
    SET failed = a.failed + 1,
        locked_until = CASE WHEN a.failed + 1 >= 5 THEN clock_timestamp() + interval '15 minutes'
                       ELSE a.locked_until END
    WHERE a.person = name
    RETURNING a.locked_until INTO locked;
    IF locked > clock_timestamp() THEN
        PERFORM prepaid.note_access('account_locked', name);
    END IF;
    RETURN locked;
END $$;

-- Opens a session for somebody whose password (or other sign-in) was right.
CREATE FUNCTION prepaid.desk_open_session(
    new_token_hash bytea, name text, idle_seconds integer, absolute_seconds integer
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
BEGIN
    -- A wrong password at this very moment waits; a locked account stays locked.
    PERFORM FROM prepaid.desk_accounts a WHERE a.person = name FOR UPDATE;
    IF NOT coalesce((SELECT may_try FROM prepaid.desk_account(name)), false) THEN
        RAISE EXCEPTION '% cannot sign in: no account, locked, disabled or in no team', name;
    END IF;
    UPDATE prepaid.desk_accounts a SET failed = 0, locked_until = NULL
    WHERE a.person = name AND (a.failed > 0 OR a.locked_until IS NOT NULL);
    DELETE FROM prepaid.desk_sessions s
    WHERE s.person = name AND s.expires_at < clock_timestamp() - interval '30 days';
    INSERT INTO prepaid.desk_sessions (token_hash, person, expires_at, idle_seconds)
    VALUES (new_token_hash, name, clock_timestamp() + make_interval(secs => absolute_seconds),
            desk_open_session.idle_seconds);
    PERFORM prepaid.note_access('signed_in', name);
END $$;

-- Whose session it is, with the person's teams; no row when it has ended (idle, over, revoked) or the
-- person was disabled, left the team or lost the role. Asking keeps it awake.
CREATE FUNCTION prepaid.desk_session(token bytea)
RETURNS TABLE (person text, team text, teams text[])
LANGUAGE sql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    WITH seen AS (
        UPDATE prepaid.desk_sessions s SET last_seen_at = clock_timestamp()
        WHERE s.token_hash = token AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
          AND s.last_seen_at > clock_timestamp() - make_interval(secs => s.idle_seconds)
        RETURNING s.person
    )
    SELECT seen.person, min(m.team), array_agg(m.team ORDER BY m.team)
    FROM seen JOIN prepaid.team_members m ON m.person = seen.person
    GROUP BY seen.person
$$;

CREATE FUNCTION prepaid.desk_end_session(token bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
    UPDATE prepaid.desk_sessions SET revoked_at = clock_timestamp()
    WHERE token_hash = token AND revoked_at IS NULL
$$;

-- Ends all sessions of a person; returns how many there were.
CREATE FUNCTION prepaid.desk_end_sessions(name text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prepaid, pg_temp AS $$
DECLARE
    ended integer;
BEGIN
    UPDATE prepaid.desk_sessions s SET revoked_at = clock_timestamp()
    WHERE s.person = name AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp();
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- For 'prepaid user', not for the pages: a new password ends all sessions and the lock.
CREATE FUNCTION prepaid.set_password(name text, hash text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO prepaid.desk_accounts AS a (person, password_hash) VALUES (name, hash)
    ON CONFLICT (person) DO UPDATE SET password_hash = hash, failed = 0, locked_until = NULL;
    PERFORM prepaid.desk_end_sessions(name);
    PERFORM prepaid.note_access('password_set', name);
END $$;
-- Who is disabled has no entry to the database any more, nor who has it by them. (accounts.py then ends the
-- sessions that they have open with SQL tools, which can read nothing from here on.)
CREATE FUNCTION prepaid.set_disabled(name text, disable boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE prepaid.desk_accounts IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO prepaid.desk_accounts AS a (person, disabled) VALUES (name, disable)
    ON CONFLICT (person) DO UPDATE SET disabled = disable, failed = 0, locked_until = NULL;
    PERFORM prepaid.desk_end_sessions(name);
    IF disable THEN
        PERFORM prepaid.shut_out(name);
    ELSE
        PERFORM prepaid.let_in(name);
    END IF;
    PERFORM prepaid.note_access(CASE WHEN disable THEN 'user_disabled' ELSE 'user_enabled' END, name);
END $$;
