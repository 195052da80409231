// Package evidence makes packs that an auditor checks alone, and checks them. A
// pack is a zip file about one period of one node's log:
//
//	events.jsonl           the events of the period, exactly as they were logged
//	log/...                the tree head that covers them, and what proves it
//	keys/log.pub           the log's public key
//	everything else        derived from these: reports, tables, samples, proofs
//	manifest.json          names every member with size and SHA-256, and the digest
//	                       of all bytes of the file before itself
//	manifest.note          the signature, a C2SP signed note under NODE/weir-evidence
//
// Everything derived is a function of the first three and of the manifest's
// parameters: Verify makes it again and compares. The zip file has one form only
// (archive.go), so that no byte of it can change unseen.
//
// The package never writes to a log, and needs neither agent nor network.
package evidence
