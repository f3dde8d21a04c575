//! The lines of `log-runtime-metrics`. Source: Dev Center, "Log Runtime Metrics".

use crate::model::{AppId, DynoId, DynoName};
use crate::supervisor::DynoUsage;

/// The two lines of one sample. `memory_pgpgin` and `memory_pgpgout` are left out on cgroup v2,
/// which counts nothing of that meaning.
pub(super) fn lines(app: AppId, id: DynoId, name: &DynoName, usage: &DynoUsage) -> [String; 2] {
    let head = format!("source={name} dyno=heroku.{}.{id}", number(app));
    let [one, five, fifteen] = usage.load;
    let memory = &usage.sample.memory;
    let paged = match memory.paged {
        Some((into, out)) => {
            format!(" sample#memory_pgpgin={into}pages sample#memory_pgpgout={out}pages")
        }
        None => String::new(),
    };
    [
        format!(
            "{head} sample#load_avg_1m={one:.2} sample#load_avg_5m={five:.2} sample#load_avg_15m={fifteen:.2}"
        ),
        format!(
            "{head} sample#memory_total={} sample#memory_rss={} sample#memory_cache={} sample#memory_swap={}{paged} sample#memory_quota={}",
            mebibytes(memory.total()),
            mebibytes(memory.rss),
            mebibytes(memory.cache),
            mebibytes(memory.swap),
            mebibytes(usage.quota_bytes),
        ),
    ]
}

/// Heroku numbers its apps; ours have only an id, whose head does as well.
fn number(app: AppId) -> u32 {
    let (head, ..) = app.0.as_fields();
    head
}

/// Two decimals, in integers: a float would not hold every byte count.
fn mebibytes(bytes: u64) -> String {
    let hundredths = (u128::from(bytes) * 100 + (1 << 19)) >> 20;
    format!("{}.{:02}MB", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Memory;
    use crate::supervisor::Sample;

    fn shown(paged: Option<(u64, u64)>) -> [String; 2] {
        let sample = Sample {
            memory: Memory {
                rss: 22_250_783,
                cache: 0,
                swap: 0,
                paged,
            },
            ..Sample::default()
        };
        let usage = DynoUsage {
            sample,
            quota_bytes: 512 << 20,
            load: [2.456, 1.06, 0.99],
        };
        let app = AppId(
            "002adb36-0000-4000-8000-000000000000"
                .parse()
                .expect("an id"),
        );
        let id = "d97d0ea7-cf3d-411b-b453-d2943a50b456"
            .parse()
            .expect("an id");
        lines(app, id, &"web.1".parse().expect("a name"), &usage)
    }

    #[test]
    fn the_lines_are_those_of_the_platform() {
        assert_eq!(
            shown(Some((348_836, 343_403))),
            [
                "source=web.1 dyno=heroku.2808630.d97d0ea7-cf3d-411b-b453-d2943a50b456 sample#load_avg_1m=2.46 sample#load_avg_5m=1.06 sample#load_avg_15m=0.99",
                "source=web.1 dyno=heroku.2808630.d97d0ea7-cf3d-411b-b453-d2943a50b456 sample#memory_total=21.22MB sample#memory_rss=21.22MB sample#memory_cache=0.00MB sample#memory_swap=0.00MB sample#memory_pgpgin=348836pages sample#memory_pgpgout=343403pages sample#memory_quota=512.00MB",
            ]
        );
        assert!(!shown(None)[1].contains("pgpg"));
    }
}
