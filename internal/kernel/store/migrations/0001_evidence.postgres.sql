-- A second guard behind the queries' own tenant condition. '*' is the kernel's
-- bookkeeping scope (store.Platform); an unset scope sees nothing.
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE events FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON events USING (current_setting('provost.tenant', true) IN (tenant, '*'));
ALTER TABLE artifacts ENABLE ROW LEVEL SECURITY;
ALTER TABLE artifacts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON artifacts USING (current_setting('provost.tenant', true) IN (tenant, '*'));
