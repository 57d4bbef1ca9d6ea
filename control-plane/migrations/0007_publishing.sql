-- Where a version comes from, as whoever published it says; empty: they did not say.
alter table model_versions add column run text not null default '';
alter table model_versions add column dataset text not null default '';
alter table model_versions add column source text not null default '';
-- What the compiler did, as JSON; empty where the artifact was uploaded.
alter table model_versions add column report_json text not null default '';

-- Names for versions of models that may move from one version to another.
create table model_aliases (
    model text not null,
    alias text not null,
    version bigint not null,
    -- Grows with every change.
    revision bigint not null,
    changed_us bigint not null,
    changed_by text not null,
    primary key (model, alias),
    foreign key (model, version) references model_versions (model, version)
);

-- Models that the server compiles, or has compiled. Until it is done, the source is in the object store under the id.
create table model_compilations (
    id text primary key,
    model text not null references models (name),
    status text not null,
    -- 1 until it is done or has failed.
    waits bigint not null,
    format text not null,
    -- SHA-256 of the source, in hex.
    source text not null,
    size bigint not null,
    run text not null,
    dataset text not null,
    -- How often it was begun: a source that brings processes down is given up.
    attempts bigint not null,
    step text not null,
    -- Why it failed.
    message text not null,
    version bigint,
    created_us bigint not null,
    created_by text not null,
    changed_us bigint not null
);
create index model_compilations_waiting on model_compilations (id) where waits = 1;
create index model_compilations_model on model_compilations (model, id);
create index model_compilations_changed on model_compilations (changed_us);
