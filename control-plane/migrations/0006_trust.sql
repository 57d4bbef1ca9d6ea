-- Roots: which keys devices believe. They are only ever added.
create table trust_roots (
    number bigint primary key,
    -- The signed message, as it was uploaded.
    message blob not null,
    created_us bigint not null,
    created_by text not null
);

-- What the owners of models have signed about versions.
create table model_releases (
    model text not null,
    version bigint not null,
    -- The signed message with every valid signature that came so far.
    message blob not null,
    -- Versions below it are withdrawn, if enough keys have signed.
    lowest bigint not null,
    changed_us bigint not null,
    primary key (model, version),
    foreign key (model, version) references model_versions (model, version)
);

-- When the desired state that an external broker has was signed: it is signed again before it expires.
alter table devices add column published_us bigint not null default 0;
create index devices_published on devices (published_us);
