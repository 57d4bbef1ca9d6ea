-- Processes that take messages in. A process checks its row in every transaction: when the row is gone, another one has
-- taken its parts and counters over. The counters are those of this process since it began.
create table telemetry_processes (
    id text primary key,
    heartbeat_us bigint not null,
    received bigint not null,
    applied bigint not null,
    duplicates bigint not null,
    malformed bigint not null,
    unknown bigint not null,
    lost bigint not null,
    skewed bigint not null
);

-- The counters of all processes that have ended: one row.
create table telemetry_counters (
    id bigint primary key check (id = 1),
    received bigint not null,
    applied bigint not null,
    duplicates bigint not null,
    malformed bigint not null,
    unknown bigint not null,
    lost bigint not null,
    skewed bigint not null
);
insert into telemetry_counters (id, received, applied, duplicates, malformed, unknown, lost, skewed)
values (1, 0, 0, 0, 0, 0, 0, 0);

-- Which messages of a boot of a device are applied, and what its reports add up to. `boot` holds 64 unsigned bits.
create table telemetry_sequences (
    device text not null,
    boot bigint not null,
    version bigint not null,
    base bigint not null,
    bitmap bigint not null,
    applied bigint not null,
    lost bigint not null,
    reports bigint not null,
    inferences bigint not null,
    failures bigint not null,
    first_us bigint not null,
    report_us bigint not null,
    state_seq bigint not null,
    updated_us bigint not null,
    primary key (device, boot)
);

-- What forgotten boots of a device added up to.
create table telemetry_forgotten (
    device text primary key,
    boots bigint not null,
    applied bigint not null,
    lost bigint not null,
    reports bigint not null,
    inferences bigint not null,
    failures bigint not null,
    report_us bigint not null
);

-- Sums that are not in a roll-up yet. An unsealed row belongs to one process.
create table telemetry_parts (
    id text primary key,
    process text not null,
    sealed bigint not null,
    model text not null,
    slot text not null,
    cohort text not null,
    fleet text not null,
    minute_us bigint not null,
    sums blob not null
);
create index telemetry_parts_sealed on telemetry_parts (id) where sealed = 1;
create index telemetry_parts_model on telemetry_parts (model, minute_us);
create index telemetry_parts_process on telemetry_parts (process);

-- Statistics by minute, hour and day: `seconds` is 60, 3600 or 86400.
create table telemetry_rollups (
    seconds bigint not null,
    model text not null,
    slot text not null,
    cohort text not null,
    start_us bigint not null,
    fleet text not null,
    version bigint not null,
    sums blob not null,
    primary key (seconds, model, slot, cohort, start_us)
);
create index telemetry_rollups_time on telemetry_rollups (seconds, start_us);

-- What would have been right, by day.
create table telemetry_labels (
    model text not null,
    slot text not null,
    cohort text not null,
    day_us bigint not null,
    predicted bigint not null,
    label bigint not null,
    confidence bigint not null,
    fleet text not null,
    count bigint not null,
    primary key (model, slot, cohort, day_us, predicted, label, confidence)
);
create index telemetry_labels_time on telemetry_labels (day_us);

create table telemetry_events (
    id text primary key,
    device text not null,
    fleet text not null,
    at_us bigint not null,
    received_us bigint not null,
    slot text not null,
    kind text not null,
    value bigint not null,
    detail text not null
);
create index telemetry_events_device on telemetry_events (device, id);
create index telemetry_events_time on telemetry_events (received_us);

-- Samples of messages that were not applied.
create table telemetry_dead_letters (
    id text primary key,
    received_us bigint not null,
    device text not null,
    fleet text,
    kind text not null,
    reason text not null,
    detail text not null,
    size bigint not null,
    payload blob not null
);
create index telemetry_dead_letters_time on telemetry_dead_letters (received_us);
