BEGIN TRANSACTION;
CREATE TABLE incidents (
	id INTEGER NOT NULL, 
	fingerprint VARCHAR(128) NOT NULL, 
	starts_at DATETIME NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	severity VARCHAR(32) NOT NULL, 
	summary VARCHAR NOT NULL, 
	labels JSON NOT NULL, 
	annotations JSON NOT NULL, 
	generator_url VARCHAR NOT NULL, 
	external_url VARCHAR NOT NULL, 
	receiver VARCHAR NOT NULL, 
	received_at DATETIME NOT NULL, 
	ends_at DATETIME, 
	resolved_received_at DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (fingerprint, starts_at)
);
INSERT INTO "incidents" VALUES(1,'f1','2026-01-02 03:04:05.678901','resolved','critical','it''s "odd"','{"alertname": "A", "severity": "critical"}','{"summary": "it''s \"odd\""}','','http://am','r','2026-11-21 11:04:08.315613','2026-01-02 03:09:05.678901','2026-11-21 11:04:08.323525');
INSERT INTO "incidents" VALUES(2,'f2','2026-01-02 03:04:05.678901','firing','critical','it''s "odd"','{"alertname": "A", "severity": "critical"}','{"summary": "it''s \"odd\""}','','http://am','r','2026-11-21 11:04:08.315613',NULL,NULL);
INSERT INTO "incidents" VALUES(3,'f3','2026-01-02 03:04:05.678901','firing','critical','it''s "odd"','{"alertname": "A", "severity": "critical"}','{"summary": "it''s \"odd\""}','','http://am','r','2026-11-21 11:04:08.315613',NULL,NULL);
CREATE TABLE notifications (
	id INTEGER NOT NULL, 
	incident_id INTEGER NOT NULL, 
	transition VARCHAR(16) NOT NULL, 
	channel VARCHAR(32) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	attempts INTEGER NOT NULL, 
	queued_at DATETIME NOT NULL, 
	due_at DATETIME NOT NULL, 
	claimed_by VARCHAR(64), 
	claimed_until DATETIME, 
	sent_at DATETIME, 
	last_error VARCHAR, 
	provider_id VARCHAR, 
	PRIMARY KEY (id), 
	UNIQUE (incident_id, transition, channel), 
	FOREIGN KEY(incident_id) REFERENCES incidents (id)
);
INSERT INTO "notifications" VALUES(1,1,'firing','sendgrid','sent',1,'2026-11-21 11:04:08.315613','2026-11-21 11:04:08.315613',NULL,NULL,'2026-11-21 11:04:08.339101',NULL,'name');
INSERT INTO "notifications" VALUES(2,2,'firing','sendgrid','parked',1,'2026-11-21 11:04:08.315613','2026-11-21 11:04:08.315613',NULL,NULL,NULL,'no',NULL);
INSERT INTO "notifications" VALUES(3,3,'firing','sendgrid','queued',0,'2026-11-21 11:04:08.315613','2026-11-21 11:04:08.315613',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "notifications" VALUES(4,1,'resolved','sendgrid','queued',0,'2026-11-21 11:04:08.323525','2026-11-21 11:04:08.323525',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE schema_version (
	id INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	checked_at DATETIME, 
	PRIMARY KEY (id)
);
INSERT INTO "schema_version" VALUES(1,1,'2026-11-21 11:04:08.342133');
CREATE INDEX ix_incidents_status_severity ON incidents (status, severity);
CREATE INDEX ix_notifications_state_due ON notifications (state, due_at);
COMMIT;
