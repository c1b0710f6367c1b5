//! What messages of neighbours do to the mesh.

use std::time::Duration;

use super::{Action, Event, Mesh};
use crate::flood::{LinkId, Outgoing, aged};
use crate::id::NodeId;
use crate::lsdb::{Key, Kind, News, Outcome, Parts, Refusal, Verdict};
use crate::time::Time;
use crate::wire::{
    AgedRecord, Base64, Certificate, CertificateRequest, FindNode, FindNodeAck, MAX_CERTIFICATE_LEN,
    MAX_FIND_TTL, Message,
};

/// Forged records of one neighbour that are checked within [`FORGED_WINDOW`]; then its records are not read until
/// it ends. An honest neighbour has checked them itself and sends none.
const MAX_FORGED: u32 = 64;
const FORGED_WINDOW: Duration = Duration::from_secs(10);

impl Mesh {
    pub(super) fn message(&mut self, link: LinkId, message: Message, now: Time, out: &mut Vec<Action>) {
        if !self.links.contains_key(&link) {
            return; // it was closed or replaced meanwhile
        }
        let mut answers = Outgoing::new();
        match message {
            Message::Advert(advert) => {
                for record in advert.records {
                    self.offer(link, record, now, out);
                }
            }
            Message::Digest(digest) => self.flood.digest(link, &digest, &self.db, now, &mut answers),
            Message::DigestRequest(request) => self.flood.request(link, &request, &self.db, now),
            Message::FindNode(find) => self.asked(link, &find, now, &mut answers),
            Message::FindNodeAck(ack) => self.answered(link, ack, now, out),
            Message::CertificateRequest(request) => {
                answers.extend(self.certificates(&request).map(|answer| (link, answer)));
            }
            Message::Certificate(certificates) => self.learn(&certificates, now, out),
            // Those of links, flows and circuits are not the mesh's.
            _ => {}
        }
        answers.extend(
            self.parked
                .requests()
                .into_iter()
                .map(|(link, keys)| (link, Message::CertificateRequest(CertificateRequest { keys }))),
        );
        out.extend(answers.into_iter().map(|(link, message)| Action::Send(link, message)));
    }

    /// Takes in one record from a neighbour.
    fn offer(&mut self, link: LinkId, record: AgedRecord, now: Time, out: &mut Vec<Action>) {
        self.counters.records_received += 1;
        if self.is_muted(link, now) {
            self.counters.muted += 1;
            return;
        }
        let AgedRecord(age, Base64(bytes)) = &record;
        let head = Parts::of(bytes).and_then(|parts| parts.head());
        if let Ok(head) = &head {
            if head.origin == *self.own.id() {
                self.own_record(link, bytes, now, out);
                return;
            }
            if !self.flood.admits(self.db.name(&head.origin), now) {
                return;
            }
        }
        let age = Duration::from_secs((*age).into());
        match self.db.offer(bytes, age, now, self.verifier.as_ref()) {
            Outcome::Stored(key, news) => self.stored(key, news, link, now, out),
            Outcome::Same(key) => self.flood.known(key, link),
            Outcome::Older(key) => self.flood.send(key, link, now),
            Outcome::Refused(refusal) => self.refused(link, refusal, now, out),
            Outcome::UnknownKey(key) => self.parked.park(key, link, record, now),
        }
    }

    fn stored(&mut self, key: Key, news: News, from: LinkId, now: Time, out: &mut Vec<Action>) {
        self.counters.records_stored += 1;
        self.flood.spread(key, news, Some(from), now);
        if news != News::Refresh {
            self.changed(now);
        }
        let found = self.db.id(key.name).filter(|_| key.kind == Kind::Node).cloned();
        if let Some(node) = found.filter(|node| self.finder.found(node)) {
            out.push(Action::Event(Event::Found(node)));
        }
    }

    /// A record of this node comes back. A newer one than it has signed is from before a restart.
    fn own_record(&mut self, link: LinkId, bytes: &[u8], now: Time, out: &mut Vec<Action>) {
        let Ok(parts) = Parts::of(bytes) else { return };
        let Ok(head) = parts.head() else { return };
        let key = self.db.key(&head.origin, head.kind);
        let stored = key.and_then(|key| self.db.record(key, now)).map(|(_, record)| record);
        if stored.is_some_and(|stored| Parts::of(stored).is_ok_and(|own| own.body == parts.body)) {
            if let Some(key) = key {
                self.flood.known(key, link);
            }
        } else if head.version < self.own.version(head.kind) {
            if let Some(key) = key {
                self.flood.send(key, link, now);
            }
        } else if self.verifier.verify(&head.origin, &head.key, parts.body, parts.signature)
            == Verdict::Genuine
        {
            self.own.jump(head.kind, head.version, now);
            out.push(Action::Event(Event::OwnRecordReturned(head.version)));
        } else {
            self.refused(link, Refusal::Forged, now, out);
        }
    }

    fn refused(&mut self, link: LinkId, refusal: Refusal, now: Time, out: &mut Vec<Action>) {
        let counters = &mut self.counters;
        let counter = match refusal {
            Refusal::Malformed(_) => &mut counters.refused_malformed,
            Refusal::Forged => &mut counters.refused_forged,
            Refusal::Capability => &mut counters.refused_capability,
            Refusal::Revoked => &mut counters.refused_revoked,
            Refusal::Expired => &mut counters.refused_expired,
            Refusal::Full => &mut counters.refused_full,
        };
        *counter += 1;
        if refusal == Refusal::Forged
            && let Some(link) = self.links.get_mut(&link)
        {
            if now - link.forged.0 >= FORGED_WINDOW {
                link.forged = (now, 0);
            }
            link.forged.1 += 1;
        }
        out.push(Action::Event(Event::Refused(link, refusal)));
    }

    fn is_muted(&self, link: LinkId, now: Time) -> bool {
        self.links
            .get(&link)
            .is_some_and(|link| link.forged.1 >= MAX_FORGED && now - link.forged.0 < FORGED_WINDOW)
    }

    /// Starts a query of this node.
    pub(super) fn find(&mut self, target: &NodeId, now: Time, out: &mut Vec<Action>) {
        if target == self.own.id() || self.db.node(target).is_some() {
            out.push(Action::Event(Event::Found(target.clone())));
            return;
        }
        let query = self.random.bits();
        if self.finder.start(target, self.own.id(), query, now) {
            let (origin, target) = (self.own.id().clone(), target.clone());
            let find = FindNode { query, origin, target, ttl: super::FIND_TTL };
            out.extend(self.links.keys().map(|link| Action::Send(*link, Message::FindNode(find.clone()))));
        }
    }

    /// A neighbour asks for a node.
    fn asked(&mut self, link: LinkId, find: &FindNode, now: Time, answers: &mut Outgoing) {
        let query = (find.origin.clone(), find.query);
        if find.origin == *self.own.id() || !self.finder.admits(query.clone(), link, now) {
            return;
        }
        if *self.own.id() == find.target || self.db.node(&find.target).is_some() {
            self.finder.answer(&query);
            let keys = Kind::ALL.into_iter().filter_map(|kind| self.db.key(&find.target, kind));
            let records = keys.filter_map(|key| self.db.record(key, now));
            let records = records.map(|(age, record)| aged(age, record)).collect();
            let FindNode { query, origin, target, .. } = find.clone();
            answers.push((link, Message::FindNodeAck(FindNodeAck { query, origin, target, records })));
        } else if let Some(ttl) = find.ttl.min(MAX_FIND_TTL).checked_sub(1).filter(|ttl| *ttl > 0) {
            let find = FindNode { ttl, ..find.clone() };
            let others = self.links.keys().filter(|other| **other != link);
            answers.extend(others.map(|other| (*other, Message::FindNode(find.clone()))));
        }
    }

    /// An answer to a query, of this node or of one that asked through it. Its records are taken in like those
    /// of an ADVERT, where somebody has asked.
    fn answered(&mut self, link: LinkId, ack: FindNodeAck, now: Time, out: &mut Vec<Action>) {
        if ack.origin == *self.own.id() {
            if self.finder.waits_for(&ack.target, ack.query) {
                for record in ack.records {
                    self.offer(link, record, now, out);
                }
            }
        } else if let Some(back) = self.finder.answer(&(ack.origin.clone(), ack.query)) {
            out.push(Action::Send(back, Message::FindNodeAck(ack)));
        }
    }

    /// The certificates that a neighbour asks for, in messages of a bounded size.
    fn certificates(&self, request: &CertificateRequest) -> impl Iterator<Item = Message> + use<> {
        let (mut messages, mut certificates, mut len) = (Vec::new(), Vec::new(), 0);
        for key in &request.keys {
            let Some(der) = self.verifier.certificate(key).filter(|der| der.len() <= MAX_CERTIFICATE_LEN)
            else {
                continue;
            };
            if len + der.len() > crate::flood::MESSAGE_LEN {
                len = 0;
                messages.push(std::mem::take(&mut certificates));
            }
            len += der.len();
            certificates.push(Base64(der));
        }
        messages.push(certificates);
        messages
            .into_iter()
            .filter(|certificates| !certificates.is_empty())
            .map(|certificates| Message::Certificate(Certificate { certificates }))
    }

    /// Takes in certificates that were asked for, and the records that waited for them.
    fn learn(&mut self, message: &Certificate, now: Time, out: &mut Vec<Action>) {
        for der in &message.certificates {
            if !self.parked.wants_any() {
                return; // nobody has asked
            }
            let learnt = self.verifier.learn(&der.0).filter(|key| self.parked.is_awaited(key));
            for (link, record) in learnt.map(|key| self.parked.learnt(&key)).unwrap_or_default() {
                if self.links.contains_key(&link) {
                    self.offer(link, record, now, out);
                }
            }
        }
    }
}
