//! `aerostat kubernetes`: the control plane of the cluster `default`, in a process of its own.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use types::IsolationClass;
use types::cluster::{ClusterName, ClusterSettings, OidcSettings};

use super::{Context, Refused};
use crate::app::{Endpoints, capacity};
use crate::clusters;
use crate::drain::Drain;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Kubernetes {
    /// Where its API listens [default: as configured]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Keys, kubeconfig and state [default: DATA_DIR/kubernetes]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// An etcd that has the state, as http://host:port; may be repeated [default: as configured]
    #[arg(long, value_name = "URL")]
    etcd: Vec<String>,
    /// What to log: a level, or tracing's filter directives
    #[arg(
        long,
        env = "AEROSTAT_LOG",
        hide_env_values = true,
        default_value = "info"
    )]
    log: String,
    // Last, because what follows would stand under its heading.
    #[command(flatten)]
    callers: Callers,
}

/// Flags of upstream's API server; each goes before what is configured.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Who may call, and what is told of it")]
struct Callers {
    /// Where the audit log goes
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// An audit.k8s.io/v1 Policy [default: the metadata of every request]
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Fixed tokens: token,user,uid,"group,group" in each line
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// An issuer whose tokens are trusted
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// What its tokens must be meant for
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim with the user's name [default: sub]
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    oidc_username_claim: Option<String>,
    /// Goes before names; -: nothing [default: the issuer and #]
    #[arg(long, value_name = "TEXT", requires = "oidc_issuer_url")]
    oidc_username_prefix: Option<String>,
    /// The claim with groups
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    oidc_groups_claim: Option<String>,
    /// Goes before groups
    #[arg(long, value_name = "TEXT", requires = "oidc_issuer_url")]
    oidc_groups_prefix: Option<String>,
    /// A claim that must have this value; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = claim, requires = "oidc_issuer_url")]
    oidc_required_claim: Vec<(String, String)>,
    /// Authorities that sign the issuer's certificate [default: those that the host trusts]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// URL in the claim `iss` of service accounts' tokens
    #[arg(long, value_name = "URL")]
    service_account_issuer: Option<String>,
    /// Where others fetch the keys of these tokens [default: below the issuer]
    #[arg(long, value_name = "URL")]
    service_account_jwks_uri: Option<String>,
    /// What tokens must be meant for; may be repeated [default: the issuer]
    #[arg(long, value_name = "AUDIENCE")]
    api_audiences: Vec<String>,
    /// A further name or address of this server, for its certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
}

fn claim(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=');
    let (claim, value) = parts.ok_or_else(|| "want CLAIM=VALUE".to_owned())?;
    Ok((claim.to_owned(), value.to_owned()))
}

impl Callers {
    /// Puts what was given over what is configured.
    fn over(self, settings: &mut ClusterSettings) -> anyhow::Result<()> {
        if let Some(path) = self.audit_log_path {
            settings.audit.get_or_insert_default().path = Some(absolute(&path)?);
        }
        if let Some(path) = self.audit_policy_file {
            settings.audit.get_or_insert_default().policy_file = Some(absolute(&path)?);
        }
        if let Some(path) = self.token_auth_file {
            settings.token_auth_file = Some(absolute(&path)?);
        }
        if let (Some(issuer), Some(client)) = (self.oidc_issuer_url, self.oidc_client_id) {
            let mut oidc = OidcSettings::new(issuer, client);
            let given = [
                (&mut oidc.username_claim, self.oidc_username_claim),
                (&mut oidc.username_prefix, self.oidc_username_prefix),
                (&mut oidc.groups_claim, self.oidc_groups_claim),
                (&mut oidc.groups_prefix, self.oidc_groups_prefix),
            ];
            for (field, value) in given {
                if let Some(value) = value {
                    *field = value;
                }
            }
            oidc.required_claims = self.oidc_required_claim.into_iter().collect();
            let path = self.oidc_ca_file.as_deref();
            oidc.ca_file = path.map(absolute).transpose()?;
            settings.oidc = Some(oidc);
        }
        if self.service_account_issuer.is_some() {
            settings.service_account_issuer = self.service_account_issuer;
        }
        if self.service_account_jwks_uri.is_some() {
            settings.service_account_jwks_uri = self.service_account_jwks_uri;
        }
        if !self.api_audiences.is_empty() {
            settings.api_audiences = self.api_audiences;
        }
        settings.names.extend(self.name);
        Ok(())
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))
}

impl Kubernetes {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log)
            .with_context(|| format!("`{}` is no log filter", self.log))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
        let mut config = context.config()?;
        if let Some(listen) = self.listen {
            config.kubernetes_listen = listen;
        }
        if !self.etcd.is_empty() {
            config.kubernetes_etcd.clone_from(&self.etcd);
        }
        let mut settings = config.kubernetes_api.clone();
        self.callers.over(&mut settings)?;
        let name = ClusterName::default_cluster();
        let dir = match self.dir {
            Some(dir) => dir,
            None => {
                let here = Endpoints::read(&context.paths)?;
                if here.is_some_and(|here| here.kubernetes.is_some()) {
                    let why = "the host's own process runs this control plane; set kubernetes = \
                               false in the configuration, or name another --dir and --listen";
                    return Err(Refused(why.into()).into());
                }
                clusters::dir(&context.paths, &name)
            }
        };
        let drain = Drain::new();
        let listener = clusters::bind(config.kubernetes_listen).await?;
        let address = listener.local_addr()?;
        let data_dir = &context.paths.data_dir;
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("cannot make {}", data_dir.display()))?;
        let capacity = capacity(data_dir)?;
        // What hosts offer is theirs to say; a pod that asks for something else is refused there.
        let host = (capacity, IsolationClass::ALL.into_iter().collect());
        let plane = clusters::ControlPlane::new(&config, &name, dir, context.client()?, host)
            .with_settings(settings);
        clusters::start_control_plane(plane, listener, &drain).await?;
        tracing::info!(%address, "the control plane answers");
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let drained = drain.token();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = drained.cancelled() => {}
        }
        if let Err(late) = drain.finish(DRAIN_TIMEOUT).await {
            tracing::warn!(?late, "some tasks did not end in time");
        }
        if let Some(task) = drain.panicked() {
            anyhow::bail!("task `{task}` has panicked; start it again");
        }
        Ok(())
    }
}
