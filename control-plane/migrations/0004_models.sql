-- Models. The name is the id.
create table models (
    name text primary key,
    description text not null,
    -- The number that the next version gets.
    next_version bigint not null,
    revision bigint not null,
    created_us bigint not null,
    created_by text not null
);

-- Versions of models. The artifact's bytes are in the object store, under their digest.
create table model_versions (
    model text not null references models (name),
    version bigint not null,
    -- SHA-256 that stands in the artifact's header, in hex; devices report it.
    digest text not null unique,
    size bigint not null,
    -- What the artifact says about itself.
    manifest_json text not null,
    has_baseline bigint not null,
    created_us bigint not null,
    created_by text not null,
    primary key (model, version)
);
