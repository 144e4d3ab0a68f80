//! Routes of a VM's tags.

use api::{VmTags, VmTagsRequest};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};

use super::Backend;
use super::routes::{Answer, Named};

pub(super) async fn tags<B: Backend>(State(backend): State<B>, vm: Named) -> Answer<VmTags> {
    let Path(vm) = vm?;
    Ok(Json(backend.vm_tags(vm).await?))
}

pub(super) async fn set_tags<B: Backend>(
    State(backend): State<B>,
    vm: Named,
    request: Result<Json<VmTagsRequest>, JsonRejection>,
) -> Answer<VmTags> {
    let (Path(vm), Json(request)) = (vm?, request?);
    Ok(Json(backend.set_vm_tags(vm, request).await?))
}
