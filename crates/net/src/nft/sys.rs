//! The C interface of libnftables, which has no safe wrapper. See libnftables(3).
#![allow(unsafe_code, reason = "a C library without a maintained safe wrapper")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;

use libloading::Library;

/// The version of its interface that Debian and everybody else has had since nftables 0.9.
const LIBRARY: &str = "libnftables.so.1";
/// `NFT_CTX_DEFAULT`.
const DEFAULT: c_uint = 0;
/// `NFT_CTX_OUTPUT_JSON`.
const JSON: c_uint = 1 << 4;

/// What the library answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) succeeded: bool,
    pub(super) output: String,
    pub(super) complaint: String,
}

/// The functions in use. They point into a library that is never unloaded.
struct Functions {
    new: unsafe extern "C" fn(c_uint) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    run: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    set_flags: unsafe extern "C" fn(*mut c_void, c_uint),
    buffer_output: unsafe extern "C" fn(*mut c_void) -> c_int,
    buffer_error: unsafe extern "C" fn(*mut c_void) -> c_int,
    output: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
}

/// A context of the library with its netlink socket: bound to the network namespace of the thread
/// that made it.
pub(super) struct Context {
    functions: &'static Functions,
    pointer: NonNull<c_void>,
}

// SAFETY: the library keeps a context's state in the context, so it may be used by any thread, one
// at a time, which `&mut self` grants.
unsafe impl Send for Context {}

impl Context {
    pub(super) fn open() -> io::Result<Self> {
        let functions = functions()?;
        // SAFETY: `new` takes flags by value; what it returns is ours until `free`.
        let pointer = unsafe { (functions.new)(DEFAULT) };
        let pointer = NonNull::new(pointer).ok_or(io::ErrorKind::OutOfMemory)?;
        let context = Self { functions, pointer };
        // SAFETY: the context lives; both calls only make it keep what it would have printed.
        let failed = unsafe {
            (functions.buffer_output)(pointer.as_ptr()) | (functions.buffer_error)(pointer.as_ptr())
        };
        if failed == 0 {
            Ok(context)
        } else {
            Err(io::ErrorKind::OutOfMemory.into())
        }
    }

    /// Runs commands as one transaction; what they print is JSON if `json`.
    pub(super) fn run(&mut self, commands: &str, json: bool) -> io::Result<Answer> {
        let commands = CString::new(commands)?;
        let flags = if json { JSON } else { 0 };
        let (functions, pointer) = (self.functions, self.pointer.as_ptr());
        // SAFETY: the context lives and nobody else uses it; the commands end with a zero byte and
        // outlive the call.
        let code = unsafe {
            (functions.set_flags)(pointer, flags);
            (functions.run)(pointer, commands.as_ptr())
        };
        // SAFETY: buffering is on, so both return text that ends with a zero byte and stays until
        // the next call; it is copied before that.
        let (output, complaint) = unsafe {
            let output = text((functions.output)(pointer));
            (output, text((functions.error)(pointer)))
        };
        Ok(Answer {
            succeeded: code == 0,
            output,
            complaint,
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is ours and is not used again.
        unsafe { (self.functions.free)(self.pointer.as_ptr()) }
    }
}

/// # Safety
///
/// `pointer` is null or text that ends with a zero byte.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

fn functions() -> io::Result<&'static Functions> {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    if let Some(functions) = FUNCTIONS.get() {
        return Ok(functions);
    }
    let functions = load().map_err(io::Error::other)?;
    Ok(FUNCTIONS.get_or_init(|| functions))
}

fn load() -> Result<Functions, libloading::Error> {
    // SAFETY: the library's initialization has no preconditions, and it is never unloaded, so the
    // functions stay where they are.
    let library = Box::leak(Box::new(unsafe { Library::new(LIBRARY) }?));
    // SAFETY: the types are those of nftables/libnftables.h.
    unsafe {
        Ok(Functions {
            new: *library.get(b"nft_ctx_new\0")?,
            free: *library.get(b"nft_ctx_free\0")?,
            run: *library.get(b"nft_run_cmd_from_buffer\0")?,
            set_flags: *library.get(b"nft_ctx_output_set_flags\0")?,
            buffer_output: *library.get(b"nft_ctx_buffer_output\0")?,
            buffer_error: *library.get(b"nft_ctx_buffer_error\0")?,
            output: *library.get(b"nft_ctx_get_output_buffer\0")?,
            error: *library.get(b"nft_ctx_get_error_buffer\0")?,
        })
    }
}
