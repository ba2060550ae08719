//! CronJobs: Jobs by the clock.

mod plan;
mod schedule;

use jiff::Timestamp;
use serde_json::Value;

use self::plan::{Plan, plan};
use super::events::News;
use super::hands::Hands;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::{Api, DeleteOptions, Propagation};
use crate::object;
use crate::resource::{CRON_JOBS, JOBS, Resource};
use crate::status::Status;

pub(super) struct CronJobs {
    hands: Hands,
}

impl CronJobs {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "cronjob-controller");
        Self { hands }
    }
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob";
    const WATCHED: &'static [&'static Resource] = &[&CRON_JOBS, &JOBS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if changed.is(&CRON_JOBS) {
            return vec![changed.key()];
        }
        changed.controller_key("CronJob").into_iter().collect()
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let Some(cron) = self.hands.known.get(&CRON_JOBS, at) else {
            return Ok(Outcome::Done);
        };
        let jobs = self.hands.known.owned(&JOBS, object::uid(&cron));
        let now = Timestamp::now();
        let Plan {
            status,
            forget,
            replace,
            create,
            news,
            again,
        } = plan(&cron, &jobs, now);
        for news in news {
            self.hands.tell(&cron, news).await;
        }
        for job in forget.iter().chain(&replace) {
            self.delete(&cron, job).await?;
        }
        let cron = self.hands.update_status(&CRON_JOBS, &cron, status).await?;
        if let Some(job) = create {
            self.create(&cron, job).await?;
            // What runs now is told at once.
            let jobs = self.hands.known.owned(&JOBS, object::uid(&cron));
            let status = plan(&cron, &jobs, now).status;
            self.hands.update_status(&CRON_JOBS, &cron, status).await?;
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl CronJobs {
    async fn create(&self, cron: &Value, job: Value) -> Result<(), Status> {
        let name = object::name(&job).to_owned();
        match self.hands.create(&JOBS, job).await {
            Ok(_) => {
                let news = News::normal("SuccessfulCreate", format!("Created job {name}"));
                self.hands.tell(cron, news).await;
                Ok(())
            }
            // Made by a former life of this program, and on its way to us.
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            Err(status) => {
                if !status.is_namespace_terminating() {
                    let message = format!("Error creating job: {status}");
                    let news = News::warning("FailedCreate", message);
                    self.hands.tell(cron, news).await;
                }
                Err(status)
            }
        }
    }

    async fn delete(&self, cron: &Value, job: &Value) -> Result<(), Status> {
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..DeleteOptions::default()
        };
        let options = options.with_uid(object::uid(job));
        let name = object::name(job);
        let news = match self.hands.delete_with(&JOBS, job, &options).await {
            Ok(true) => News::normal("SuccessfulDelete", format!("Deleted job {name}")),
            Ok(false) => return Ok(()),
            Err(status) => News::warning("FailedDelete", format!("Deleted job: {status}")),
        };
        self.hands.tell(cron, news).await;
        Ok(())
    }
}
