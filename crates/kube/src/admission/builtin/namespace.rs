//! NamespaceLifecycle: nothing is created in a namespace that is not there or is going away, and a
//! cluster keeps the namespaces that it cannot be without.

use crate::admission::{Attributes, Operation};
use crate::object;
use crate::resource::NAMESPACES;
use crate::status::Status;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn lifecycle(attributes: &Attributes<'_>) -> Result<(), Status> {
    let Attributes { api, resource, .. } = attributes;
    match attributes.operation {
        Operation::Delete => {
            if attributes.is_object(&NAMESPACES) && IMMORTAL.contains(&attributes.name.as_str()) {
                let why = "this namespace may not be deleted";
                return Err(Status::forbidden(resource, &attributes.name, why));
            }
            Ok(())
        }
        Operation::Create => {
            let Some(namespace) = attributes.namespace else {
                return Ok(());
            };
            // Questions about access have to be answered whatever becomes of the namespace.
            if resource.plural == "localsubjectaccessreviews" {
                return Ok(());
            }
            let found = api.admission().namespaces.get(api, None, namespace);
            let found = found.ok_or_else(|| Status::not_found(&NAMESPACES, namespace))?;
            // Events tell why things go away.
            if object::is_terminating(&found) && resource.plural != "events" {
                let name = &attributes.name;
                return Err(Status::terminating(resource, name, namespace));
            }
            Ok(())
        }
        Operation::Update | Operation::Connect => Ok(()),
    }
}
