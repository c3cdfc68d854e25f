ALTER TABLE exports ENABLE ROW LEVEL SECURITY;
ALTER TABLE exports FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON exports USING (current_setting('provost.tenant', true) IN (tenant, '*'));
