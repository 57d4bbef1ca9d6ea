-- Access tokens. The token itself is never stored: only its SHA-256, in hex.
create table tokens (
    id text primary key,
    name text not null,
    digest text not null unique,
    role text not null check (role in ('viewer', 'operator', 'ci', 'admin')),
    -- Null: everything. Else the one fleet or model that the token reaches.
    scope_fleet text,
    scope_model text,
    created_us bigint not null,
    created_by text not null,
    expires_us bigint,
    last_used_us bigint,
    revoked_us bigint
);

-- The audit log. No statement in the program changes or deletes a row, and triggers (in the file of each database) refuse it.
create table audit (
    id text primary key,
    at_us bigint not null,
    principal text not null,
    principal_name text not null,
    action text not null,
    resource_kind text not null,
    resource_id text not null,
    fleet text,
    model text,
    request_id text,
    before_json text,
    after_json text
);
create index audit_resource on audit (resource_kind, resource_id, id);
create index audit_principal on audit (principal, id);

-- Answers to requests with an idempotency key; see http/idempotency.rs for what the columns hide.
create table idempotency (
    id text primary key,
    fingerprint text not null,
    locked_until_us bigint not null,
    expires_us bigint not null,
    answer blob
);
create index idempotency_expires on idempotency (expires_us);

-- Who does which background work; see db/lease.rs.
create table leases (
    name text primary key,
    holder text not null,
    expires_us bigint not null
);
