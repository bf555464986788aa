-- Invoice and credit note numbers are gapless per series and year.
WITH used AS (
    SELECT split_part(document_number, '-', 1) AS series,
           CAST(split_part(document_number, '-', 2) AS integer) AS year, count(*) AS documents,
           min(CAST(split_part(document_number, '-', 3) AS bigint)) AS first,
           max(CAST(split_part(document_number, '-', 3) AS bigint)) AS last
    FROM (SELECT invoice_number FROM prepaid.invoices
          UNION ALL SELECT credit_note_number FROM prepaid.credit_notes) issued (document_number)
    GROUP BY 1, 2
)
SELECT format('series %s %s: %s, there are %s documents with numbers from %s to %s', series, year,
              coalesce('the counter says ' || s.last_number, 'there is no counter'),
              coalesce(u.documents, 0), coalesce(u.first, 0), coalesce(u.last, 0)) AS finding
FROM prepaid.invoice_series s FULL JOIN used u USING (series, year)
WHERE s.last_number IS DISTINCT FROM coalesce(u.documents, 0)
   OR s.last_number <> coalesce(u.last, 0) OR u.first <> 1
ORDER BY series, year;
