//! Rows of `batch`.

use super::{CORE, Resource, StatusPart, status_of};

pub static CRON_JOBS: Resource = Resource {
    group: "batch",
    plural: "cronjobs",
    singular: "cronjob",
    kind: "CronJob",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &[status_of("CronJob")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.batch.v1.CronJob",
    ..CORE
};

pub static JOBS: Resource = Resource {
    group: "batch",
    plural: "jobs",
    singular: "job",
    kind: "Job",
    categories: &["all"],
    subresources: &[status_of("Job")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.batch.v1.Job",
    orphans_by_default: true,
    ..CORE
};
