//! The driver that a simulated core sees.

use super::network::Network;
use super::node::{Into, Node, Submission};
use crate::driver::{Completion, Group, Kind, Tag};
use crate::host::Address;
use crate::listener::Bound;
use crate::message::Slot;
use crate::wake::Wake;
use std::cell::RefCell;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

pub(crate) struct SimDriver {
    node: usize,
    network: Rc<RefCell<Network>>,
}

impl SimDriver {
    pub(super) fn new(network: Rc<RefCell<Network>>) -> SimDriver {
        let node = {
            let nodes = &mut network.borrow_mut().nodes;
            nodes.push(Node::new());
            nodes.len() - 1
        };
        SimDriver { node, network }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.network.borrow().now_ns
    }

    fn queue(&mut self, submission: Submission) {
        self.network.borrow_mut().nodes[self.node].submitted.push_back(submission);
    }

    /// Queues an operation on a descriptor, after checking that it may be.
    fn begin(&mut self, fd: i32, tag: Tag, submission: Submission) {
        self.network.borrow_mut().begin_operation(self.node, fd, tag);
        self.queue(submission);
    }

    pub(crate) fn accept(&mut self, fd: i32, tag: Tag) {
        self.begin(fd, tag, Submission::Accept { fd, tag });
    }

    pub(crate) fn receive(&mut self, fd: i32, group: Group, multishot: bool, tag: Tag) {
        self.begin(fd, tag, Submission::Receive { fd, into: Into::Provided { group, multishot }, tag });
    }

    pub(crate) fn receive_into(&mut self, fd: i32, memory: NonNull<u8>, length: u32, tag: Tag) {
        self.begin(fd, tag, Submission::Receive { fd, into: Into::Memory { memory, length }, tag });
    }

    pub(crate) fn readable(&mut self, fd: i32, tag: Tag) {
        self.begin(fd, tag, Submission::Readable { fd, tag });
    }

    pub(crate) fn send(&mut self, fd: i32, slot: &mut Slot, tag: Tag) {
        let slices = slot.rest().iter();
        let slices = slices.filter_map(|slice| Some((NonNull::new(slice.iov_base.cast())?, slice.iov_len))).collect();
        self.begin(fd, tag, Submission::Send { fd, slices, tag });
    }

    pub(crate) fn socket(&mut self, _address: &Address) -> io::Result<i32> {
        self.network.borrow_mut().socket(self.node)
    }

    pub(crate) fn connect(&mut self, fd: i32, address: &Address, tag: Tag) {
        self.begin(fd, tag, Submission::Connect { fd, address: address.clone(), tag });
    }

    pub(crate) fn cancel(&mut self, target: Tag, tag: Tag) {
        self.queue(Submission::Cancel { target, tag });
    }

    pub(crate) fn close(&mut self, fd: i32) {
        self.network.borrow_mut().begin_close(self.node, fd);
        self.queue(Submission::Close { fd });
    }

    pub(crate) fn shutdown_write(&mut self, fd: i32) {
        self.network.borrow_mut().shutdown_write(fd);
    }

    pub(crate) fn reset_on_close(&mut self, fd: i32) {
        self.network.borrow_mut().reset_on_close(fd);
    }

    pub(crate) fn peer(&self, fd: i32) -> Option<Address> {
        self.network.borrow().addresses(fd).map(|(_, peer)| peer)
    }

    pub(crate) fn local(&self, fd: i32) -> Option<Address> {
        self.network.borrow().addresses(fd).map(|(local, _)| local)
    }

    pub(crate) fn listen(&mut self, bound: Bound) -> io::Result<i32> {
        match bound {
            Bound::Simulated(address) => Ok(self.network.borrow_mut().listen(self.node, address)),
            Bound::Descriptor(_) => Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
        }
    }

    pub(crate) fn provide(&mut self, group: Group, id: u16, memory: NonNull<u8>, length: u32) {
        let mut network = self.network.borrow_mut();
        if !network.nodes[self.node].groups[group as usize].put(id, memory, length) {
            network.fail(&format!("buffer {id} of {group:?} was provided twice"));
        }
    }

    pub(crate) fn publish(&mut self) {
        for group in &mut self.network.borrow_mut().nodes[self.node].groups {
            group.publish();
        }
    }

    pub(crate) fn wake(&self) -> Wake {
        self.network.borrow().nodes[self.node].wake.clone()
    }

    pub(crate) fn arm_wake(&mut self, tag: Tag) {
        debug_assert_eq!(tag.kind(), Kind::Wake);
        self.network.borrow_mut().nodes[self.node].wake_tag = Some(tag);
    }

    pub(crate) fn enter(&mut self, _wait: bool, _timeout_ns: Option<u64>, done: &mut Vec<Completion>) {
        self.network.borrow_mut().enter(self.node, done);
    }
}

/// What the world catches.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::sim::Faults;

    /// A driver with two ends of a connection.
    fn pair() -> (SimDriver, i32, i32) {
        let network = Rc::new(RefCell::new(Network::new(1, Faults::none())));
        let mut driver = SimDriver::new(network.clone());
        let address = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let listener = driver.listen(Bound::Simulated(address.clone())).unwrap();
        driver.accept(listener, Tag::new(Kind::Accept, 0, 0));
        let client = driver.socket(&address).unwrap();
        driver.connect(client, &address, Tag::new(Kind::Connect, 0, 0));
        let done = run(&mut driver);
        let accepted = done.iter().find(|one| one.tag.kind() == Kind::Accept).unwrap().result;
        (driver, client, accepted)
    }

    fn run(driver: &mut SimDriver) -> Vec<Completion> {
        let mut done = Vec::new();
        for _ in 0..100 {
            driver.enter(false, None, &mut done);
            let later = driver.now_ns() + 1_000_000;
            driver.network.borrow_mut().pass_until(later);
        }
        done
    }

    fn receive(driver: &mut SimDriver, fd: i32, index: u32) {
        driver.receive(fd, Group::Small, false, Tag::new(Kind::Receive, 0, index));
    }

    #[test]
    #[should_panic(expected = "seed 1, at")]
    fn two_receives_at_once_are_caught() {
        let (mut driver, client, _) = pair();
        receive(&mut driver, client, 0);
        receive(&mut driver, client, 1);
    }

    #[test]
    #[should_panic(expected = "share")]
    fn two_operations_with_one_tag_are_caught() {
        let (mut driver, client, accepted) = pair();
        receive(&mut driver, client, 0);
        receive(&mut driver, accepted, 0);
    }

    #[test]
    #[should_panic(expected = "which is closed")]
    fn an_operation_on_a_closed_descriptor_is_caught() {
        let (mut driver, client, _) = pair();
        driver.close(client);
        receive(&mut driver, client, 0);
    }

    #[test]
    #[should_panic(expected = "closes descriptor")]
    fn a_close_with_something_armed_is_caught() {
        let (mut driver, client, _) = pair();
        receive(&mut driver, client, 0);
        driver.close(client);
    }

    #[test]
    #[should_panic(expected = "provided twice")]
    fn a_buffer_that_comes_back_twice_is_caught() {
        let (mut driver, ..) = pair();
        let mut memory = [0; 16];
        let memory = NonNull::from(&mut memory).cast();
        driver.provide(Group::Small, 0, memory, 16);
        driver.provide(Group::Small, 0, memory, 16);
    }

    #[test]
    #[should_panic(expected = "memory of a send changed")]
    fn a_change_under_a_send_is_caught() {
        let (mut driver, client, _) = pair();
        let mut memory = [7u8; 100];
        let start: NonNull<u8> = NonNull::from(&mut memory).cast();
        let fd = client;
        let slices = vec![(start, 100)];
        driver.begin(fd, Tag::new(Kind::Send, 0, 0), Submission::Send { fd, slices, tag: Tag::new(Kind::Send, 0, 0) });
        // Sent, but the completion is not delivered yet.
        let mut network = driver.network.borrow_mut();
        let submission = network.nodes[0].submitted.pop_front().unwrap();
        network.submit(0, submission);
        // SAFETY: within `memory`, which lives.
        unsafe { start.add(50).write(8) };
        network.enter(0, &mut Vec::new());
    }

    #[test]
    fn a_buffer_that_came_back_is_overwritten() {
        let (mut driver, client, accepted) = pair();
        let mut memory = [0u8; 16];
        let start: NonNull<u8> = NonNull::from(&mut memory).cast();
        driver.provide(Group::Small, 0, start, 16);
        driver.publish();
        receive(&mut driver, accepted, 0);
        let mut bytes = *b"hello";
        let slices = vec![(NonNull::from(&mut bytes).cast(), 5)];
        let tag = Tag::new(Kind::Send, 0, 0);
        driver.begin(client, tag, Submission::Send { fd: client, slices, tag });
        run(&mut driver);
        // SAFETY: `memory` lives, and the driver gave it back with the completion.
        assert_eq!(unsafe { std::slice::from_raw_parts(start.as_ptr(), 5) }, b"hello");
        driver.provide(Group::Small, 0, start, 16);
        assert_ne!(memory[..5], *b"hello");
    }
}
