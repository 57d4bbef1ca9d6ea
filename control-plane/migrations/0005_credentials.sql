-- How often a device was given credentials: connections made with earlier ones are ended by every process.
alter table devices add column credentials bigint not null default 0;
