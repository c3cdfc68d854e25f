ALTER TABLE authorities ENABLE ROW LEVEL SECURITY;
ALTER TABLE authorities FORCE ROW LEVEL SECURITY;
-- A tenant also reads the platform's: it may be bound to them.
CREATE POLICY tenant_rows ON authorities
    USING (current_setting('provost.tenant', true) IN (tenant, '*') OR tenant = 'system')
    WITH CHECK (current_setting('provost.tenant', true) IN (tenant, '*'));
ALTER TABLE policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE policies FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON policies
    USING (current_setting('provost.tenant', true) IN (tenant, '*') OR tenant = 'system')
    WITH CHECK (current_setting('provost.tenant', true) IN (tenant, '*'));
