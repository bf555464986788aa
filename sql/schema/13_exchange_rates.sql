-- What one unit of a currency is worth in the reporting currency at the end of a month. Imported; the
-- report converts with these and makes nothing up where one is missing.
CREATE TABLE revenue.exchange_rates (
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    currency text NOT NULL REFERENCES prepaid.currencies,
    reporting_currency text NOT NULL REFERENCES prepaid.currencies,
    rate numeric NOT NULL CHECK (rate > 0 AND rate < 'Infinity'),
    PRIMARY KEY (month, currency, reporting_currency),
    CHECK (currency <> reporting_currency)
);
CREATE TRIGGER audit_master_data AFTER UPDATE ON revenue.exchange_rates
    FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION prepaid.audit_master_data('exchange_rate', 'no single key', 'values',
        'month,currency,reporting_currency');
CREATE TRIGGER audit_added_master_data AFTER INSERT ON revenue.exchange_rates
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION prepaid.audit_added_master_data('exchange_rate', 'no single key');
