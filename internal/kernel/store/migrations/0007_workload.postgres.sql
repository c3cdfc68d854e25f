ALTER TABLE workloads ENABLE ROW LEVEL SECURITY;
ALTER TABLE workloads FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON workloads USING (current_setting('provost.tenant', true) IN (tenant, '*'));
