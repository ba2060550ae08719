//! Kubernetes: API server, scheduler and provider. Reaches machines only through `client`.
