-- Fleets. The id is the name that people gave it.
create table fleets (
    id text primary key,
    description text not null,
    -- Settings of its devices, unless a device has its own; 0 leaves it to the device.
    report_period_s bigint not null,
    window_period_s bigint not null,
    window_count bigint not null,
    revision bigint not null,
    created_us bigint not null
);

-- Enrolment keys (claims). The secret itself is never stored: only its SHA-256, in hex.
create table claims (
    id text primary key,
    fleet text not null references fleets (id),
    name text not null,
    digest text not null unique,
    created_us bigint not null,
    created_by text not null,
    expires_us bigint,
    use_limit bigint,
    used bigint not null,
    revoked_us bigint
);
create index claims_fleet on claims (fleet, id);

-- What a claim is restricted to: kind 'serial' or 'hardware'. No row of a kind: not restricted.
create table claim_allows (
    claim text not null references claims (id) on delete cascade,
    kind text not null,
    value text not null,
    primary key (claim, kind, value)
);

-- Devices. Every change of a row by operators sets changed_us, by which other processes notice it.
create table devices (
    id text primary key,
    fleet text not null references fleets (id),
    hardware text not null,
    serial text,
    claim text,
    created_us bigint not null,
    blocked_us bigint,
    blocked_reason text,
    -- SHA-256 of the password in hex; null for devices with certificates only.
    password_digest text,
    -- Own settings; null: the fleet's.
    report_period_s bigint,
    window_period_s bigint,
    window_count bigint,
    -- The state the device should reach, and the generation of it that the broker has.
    generation bigint not null,
    generation_us bigint not null,
    published_generation bigint not null,
    -- The device's own words.
    agent_version text,
    agent_order bigint,
    reported_hardware text,
    reported_generation bigint,
    state_us bigint,
    revision bigint not null,
    changed_us bigint not null
);
create unique index devices_serial on devices (fleet, serial);
create index devices_fleet on devices (fleet, id);
create index devices_changed on devices (changed_us);
create index devices_unpublished on devices (id) where published_generation < generation;

-- Apart from devices, because it changes all the time.
create table device_activity (
    device text primary key references devices (id) on delete cascade,
    last_seen_us bigint not null
);

-- Devices connected to an embedded endpoint, and the process that holds the connection.
create table device_connections (
    device text primary key references devices (id) on delete cascade,
    process text not null,
    since_us bigint not null
);
-- Processes with an embedded endpoint; one that stops renewing its row holds no connections any more.
create table device_endpoints (
    process text primary key,
    expires_us bigint not null
);

create table device_tags (
    device text not null references devices (id) on delete cascade,
    key text not null,
    value text not null,
    -- The value as a number, if it is one.
    number double precision,
    primary key (device, key)
);
create index device_tags_value on device_tags (key, value);

create table device_attributes (
    device text not null references devices (id) on delete cascade,
    key text not null,
    value text not null,
    number double precision,
    -- 1: the device's own words, replaced by its next state; 0: an operator's, or from enrolment.
    reported bigint not null,
    primary key (device, key)
);
create index device_attributes_value on device_attributes (key, value);

-- What the slots hold, as the device reported it.
create table device_slots (
    device text not null references devices (id) on delete cascade,
    slot text not null,
    status text not null,
    digest text,
    -- From the registry, once it knows the digest.
    model text,
    version bigint,
    reason text not null,
    changed_us bigint not null,
    primary key (device, slot)
);
create index device_slots_digest on device_slots (digest);

-- What the slots should hold.
create table device_desired (
    device text not null references devices (id) on delete cascade,
    slot text not null,
    model text not null,
    version bigint not null,
    digest text not null,
    size bigint not null,
    settings_json text not null,
    primary key (device, slot)
);

-- Certificates that were issued and have not expired, so that they can be revoked.
create table device_certificates (
    serial text primary key,
    device text not null,
    issued_us bigint not null,
    expires_us bigint not null,
    revoked_us bigint
);
create index device_certificates_device on device_certificates (device);

-- Ids of deleted devices; they come back only after their last certificate has expired.
create table deleted_devices (
    id text primary key,
    fleet text not null,
    deleted_us bigint not null,
    until_us bigint not null
);
create index deleted_devices_time on deleted_devices (deleted_us);

-- The authority that signs devices' certificates: one row. Its key is not in the database.
create table device_authority (
    id bigint primary key check (id = 1),
    certificate_pem text not null
);
